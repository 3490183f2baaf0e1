"""Takes payments, each once."""

import itertools

from easyremote import ComputeNode

node = ComputeNode(node_id="payment-processor")
numbers = itertools.count(1001)

@node.register
def process_payment(payment_info):
    if payment_info["amount"] <= 0:
        raise ValueError(f"an amount of {payment_info['amount']} cannot be paid")
    return {"number": next(numbers), "amount": payment_info["amount"]}

node.serve()
