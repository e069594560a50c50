"""The client of a second site (``backstay site``): its vault as an object store over HTTPS."""
