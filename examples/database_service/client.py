"""The same query without a token, and with one that this user has stored."""

from easyremote import remote
from r3mes import AccessDeniedError

query = ("select title from papers where year > ?", [1940])
try:
    remote("database-service", "query_database")(*query)
except AccessDeniedError as error:
    print(f"refused: {error}")
else:
    raise AssertionError("a caller without a token was answered")
rows = remote("database-service", "query_database", auth="alice")(*query)
assert rows == [["A Mathematical Theory"]], rows
