# The command line against a fake API that holds both sides to api/openapi.yaml.
build dev gemel
for part in bad_input status commands contract; do
    run "cli-$part" env GEMEL="$ROOT/build/dev/src/cli/gemel" /usr/bin/python3 -B "tests/cli/test_$part.py"
done
