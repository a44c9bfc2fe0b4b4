"""The product on a cluster, from install to uninstall: ``scripts/e2e-cluster`` on a real one, a test on an
emulated one.

Owns the scenarios and what they need of a cluster. Uses the product's own client, so that neither kubectl
nor anything but the project's environment is needed.
"""
