"""What is remembered is what would be computed. 1,000 sets of texts: tests/soak."""

from processes import ServerProcess, StartServer
from sameness import largest_difference


async def test_remembered_is_computed(server: ServerProcess, new_server: StartServer) -> None:
    assert await largest_difference(server, new_server("--cache-entries", "0"), sets=150) <= 1e-5
