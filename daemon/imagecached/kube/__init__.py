"""Everything that talks to a Kubernetes API server: client, node agent, controller, admission."""
