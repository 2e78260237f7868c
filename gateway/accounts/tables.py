"""The tables. Migrations create them; `gateway db check` proves that both agree.

All times are unix seconds by the database's clock. Ids are UUID text, so that
both databases hold and compare them alike.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", String(36), primary_key=True),
    # The canonical form only: a second spelling beside it would be a second truth.
    Column("email", Text, nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("roles", Text, nullable=False),  # a JSON array of sorted names
    Column("disabled", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    # How often its limits were cleared: part of their counters' names, wherever those are.
    Column("limits_epoch", Integer, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# From where an account has logged in lately: strangers' guesses can't lock its owner out there.
known_networks = Table(
    "known_networks",
    metadata,
    Column("user_id", String(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("network", String(64), primary_key=True),  # an IPv4 address, an IPv6 /64, or "unix"
    Column("last_login_at", Double, nullable=False),
    Index(None, "last_login_at"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("user_id", String(36), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("generation", BigInteger, nullable=False),
    # `iat` and `exp` of the present generation's refresh token, which is therefore always the same text.
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # When the present generation replaced the one before it: the grace counts from here.
    Column("rotated_at", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("last_used_at", Double, nullable=False),
    # Of the login, then of the latest rotation.
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("revoked_at", Double),
    Column("revoked_reason", String(32)),
    Index(None, "user_id"),
    Index(None, "expires_at"),
)

cutoffs = Table(
    "cutoffs",
    metadata,
    # SQLite numbers rows by itself only in a column declared exactly INTEGER.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("id", String(36), nullable=False),
    Column("version", Integer, nullable=False),
    Column("until", Double, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Index(None, "recorded_at"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("user_id", String(36), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    # SHA-256 of the whole token, in hex. It has 256 random bits, so there is nothing to stretch.
    Column("digest", String(64), nullable=False, unique=True),
    Column("scopes", Text, nullable=False),  # a JSON array of sorted names
    Column("limits", Text, nullable=False),  # a JSON object: methods and paths, each a list or null
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),  # a user's id, or the command line
    Column("expires_at", BigInteger),
    Column("last_used_at", Double),
    Column("revoked_at", Double),
    Index(None, "user_id"),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("recorded_at", Double, nullable=False),
    Column("name", String(64), nullable=False),
    Column("actor", Text),
    Column("address", Text),
    Column("request_id", Text),
    # Whom it is about. No foreign key: what happened to a deleted user still happened.
    Column("user_id", String(36)),
    Column("email", Text),  # of an account that was, or of none
    Column("details", Text, nullable=False),  # a JSON object of the event's other fields
    Index(None, "recorded_at"),
    # Newest first, by what is asked for in the hour of need.
    Index(None, "name", "seq"),
    Index(None, "actor", "seq"),
    Index(None, "address", "seq"),
    Index(None, "user_id", "seq"),
    Index(None, "email", "seq"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("seen_at", Double, nullable=False),
)
