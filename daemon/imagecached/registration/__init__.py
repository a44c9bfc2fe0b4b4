"""The use case "containerd knows what is prepared", so that the kubelet never has to pull it.

``wanted`` says what containerd must hold of an image and ``plan`` which steps lead there, both pure;
``place`` looks and acts in one namespace, and makes it forget chains that are ``lost``; ``schedule`` and
``index`` say when, ``registrar`` is the service.
``blobs`` brings the layers as the registry has them to those who push or export, or to pods that wait for
them, which ``stuck`` notices and ``rescue`` acts upon; ``sandbox`` keeps the pause image of the handler;
``farewell`` forgets what could not start without us.
"""

from __future__ import annotations

from imagecached.registration.registrar import Registration, RegistrationSettings
from imagecached.registration.sandbox import Sandbox
from imagecached.registration.states import RegistrationState

__all__ = ["Registration", "RegistrationSettings", "RegistrationState", "Sandbox"]
