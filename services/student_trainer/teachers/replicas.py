"""Where one teacher's replicas listen, and that they are one teacher.

`a:50051+b:50051` lists them; a single name may have many addresses, which gRPC looks up again.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence

from student_trainer.teachers import TeacherUrlError
from teacher_api.errors import FingerprintMismatchError, TeacherError
from teacher_api.messages import Description

logger = logging.getLogger(__name__)


def look_up(place: str) -> list[str]:
    """The addresses that a host:port has now, each with the port; IPv6 in brackets.

    Raises:
        OSError: nobody knows the host.
    """
    host, _, port = place.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    hosts = dict.fromkeys(str(address[0]) for *_, address in found)
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]


async def look_up_all(places: Sequence[str]) -> list[str]:
    """The same of several places; those that nobody knows have none."""
    found = await asyncio.gather(*(asyncio.to_thread(look_up, one) for one in places), return_exceptions=True)
    return [address for addresses in found if isinstance(addresses, list) for address in addresses]


def target_of(places: Sequence[str]) -> str:
    """gRPC's name for all of them together.

    A name alone is left to gRPC, which looks it up again when a connection ends. A list can hold addresses
    of one kind only, so its names are looked up here, once.

    Raises:
        TeacherUrlError: a listed name is unknown, or the list mixes IPv4 and IPv6.
    """
    if len(places) == 1:
        return places[0]
    try:
        found = [look_up(place) for place in places]
    except OSError as error:
        raise TeacherUrlError(f"teacher {'+'.join(places)!r}: a host cannot be looked up: {error}") from error
    for scheme, is_v6 in (("ipv4", False), ("ipv6", True)):
        chosen = [[one for one in addresses if one.startswith("[") is is_v6] for addresses in found]
        if all(chosen):
            return f"{scheme}:{','.join(address for addresses in chosen for address in addresses)}"
    raise TeacherUrlError(f"teacher {'+'.join(places)!r} mixes IPv4 and IPv6; list addresses of one kind")


def one_teacher(told: Mapping[str, Description | BaseException], *, listed: bool) -> Description:
    """What all replicas that answered say they are.

    Args:
        told: by address, what it is or why that is not known.
        listed: the addresses were written out one by one; a name may have some where nobody listens, as
            localhost's IPv6, so that only a list's absent ones are worth a warning.

    Raises:
        FingerprintMismatchError: two of them are different teachers; names both.
        TeacherError: none answered; the first one's error.
    """
    reached = {address: one for address, one in told.items() if isinstance(one, Description)}
    errors = {address: one for address, one in told.items() if not isinstance(one, Description)}
    for address, error in errors.items():
        if not isinstance(error, TeacherError):
            raise error
        logger.log(logging.WARNING if listed else logging.INFO, "no word from replica %s: %s", address, error)
    if not reached:
        raise next(iter(errors.values()))
    places = {one.fingerprint: address for address, one in reached.items()}
    if len(places) > 1:
        said = " but ".join(f"{address} serves {fingerprint}" for fingerprint, address in places.items())
        raise FingerprintMismatchError(
            f"the replicas are not one teacher: {said}; serve the same checkpoint with the same settings"
        )
    return next(iter(reached.values()))
