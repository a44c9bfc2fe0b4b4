"""How the cluster's parts grow: thousands of emulated nodes, hundreds of caches, one API server, in virtual
time.
"""
