"""How uploads come in: one plain function, the Flask doors before it, and the gunicorn worker that serves them."""
