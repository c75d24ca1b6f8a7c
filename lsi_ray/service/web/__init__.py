"""The web page of the service, made on the server: batches, one batch, a form to submit, the cluster."""
