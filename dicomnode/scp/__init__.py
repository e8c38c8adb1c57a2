"""The DIMSE listener: C-ECHO and C-STORE. It never imports torch and never decodes pixels."""

from dicomnode.scp.listener import Listener

__all__ = ["Listener"]
