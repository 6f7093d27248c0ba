run guest-image src/guestimage/tests/test_boot.py
