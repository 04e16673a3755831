"""Layer 2: every RPC method, its parameters, result, errors and help, declared once.

Dispatch, the typed clients, the CLI's argument table, completion and the reference derive from here.
"""
