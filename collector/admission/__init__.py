"""Who may upload, how much, and where it goes: keys, tenants, quotas, and the gate that asks them all."""
