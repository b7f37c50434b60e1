"""The client's side of a build: its folders, secrets, agents and registry logins."""

from bknb.session.local import LocalSession, SecretSource

__all__ = ["LocalSession", "SecretSource"]
