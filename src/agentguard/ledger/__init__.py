"""The effect ledger: every verb is one function over one transaction, written once for all stores."""
