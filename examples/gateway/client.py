"""The gateway chooses among nodes: by turns here, and by name and capability where the call says so."""

from easyremote import Client, remote


@remote(strategy="round_robin")
def whoami(number):
    pass


answers = {whoami(number).split()[0] for number in range(8)}
assert answers == {"one", "two"}, answers
assert remote("two", "whoami")(1) == "two 1"
nodes = {node["id"]: node for node in Client().nodes()}
assert nodes["one"]["functions"] == ["whoami"], nodes
print(f"calls went to {' and '.join(sorted(answers))}")
