CREATE TABLE acknowledged (id bigint PRIMARY KEY, payload text NOT NULL, at timestamptz NOT NULL DEFAULT now());
ALTER TABLE acknowledged OWNER TO demo;
