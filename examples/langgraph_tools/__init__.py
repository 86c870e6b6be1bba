"""Tools that come from elsewhere, guarded by a policy file: not a line of them is changed."""
