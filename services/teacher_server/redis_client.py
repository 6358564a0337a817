"""How both stores reach their Redis: in little time or not at all, and never twice."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

CONNECTIONS = 16


def redis_client(url: str, seconds: float) -> Redis:
    """Each wait, for a connection as for a reply, ends after so many seconds, and an operation is tried once.

    Raises:
        ValueError: the address cannot be read; its text may quote a password.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
        # While it listens for these, the pool gives out connections that the other end has closed.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return Redis.from_pool(pool)


def connection_of(client: Redis) -> AbstractConnection:
    """One beside the pool's, still to be connected, for whoever watches over the time of its replies."""
    connection: AbstractConnection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    connection.socket_timeout = None
    return connection
