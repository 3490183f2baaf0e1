"""A service that answers nobody without a token."""

import sqlite3

from easyremote import ComputeNode

database = sqlite3.connect(":memory:", check_same_thread=False)
database.execute("create table papers (title text, year integer)")
database.executemany("insert into papers values (?, ?)", [("On Computable Numbers", 1936), ("A Mathematical Theory", 1948)])


def execute_secure_query(query, params):
    return database.execute(query, params).fetchall()


service_node = ComputeNode(
    vps_address="gateway.com:8080",
    node_id="database-service",
    capabilities={
        "databases": ["postgresql", "redis", "elasticsearch"],
        "specialization": ["data_storage", "search", "analytics"]
    }
)

@service_node.register(auth_required=True)
def query_database(query, params):
    """Execute database queries with proper authentication"""
    return execute_secure_query(query, params)

service_node.serve()
