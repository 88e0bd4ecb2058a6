"""A model as one web page that writes and reads in a browser, without any connection."""
