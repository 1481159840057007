"""Audits of the distillation losses of other libraries: `make audit`."""
