"""The page at ``/``: what a browser is sent. It talks to the API like any other client."""
