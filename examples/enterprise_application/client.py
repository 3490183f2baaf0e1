"""An application of services on machines of their own."""

import asyncio
from types import SimpleNamespace

from easyremote import remote
from r3mes import RemoteError


# Enterprise app using distributed microservices
@remote(node_id="auth-service")
def authenticate_user(credentials):
    pass

@remote(node_id="payment-processor")
def process_payment(payment_info):
    pass

@remote(node_id="recommendation-engine")
def get_recommendations(user_id):
    pass

# Distributed application architecture
async def handle_user_request(user_request):
    # Authenticate
    user = await authenticate_user(user_request.credentials)
    
    if user_request.type == "purchase":
        payment_result = await process_payment(user_request.payment_info)
        return {"status": "purchased", "transaction": payment_result}
    
    elif user_request.type == "browse":
        recommendations = await get_recommendations(user.id)
        return {"recommendations": recommendations}


async def main():
    alice = {"name": "alice", "password": "correct horse"}
    purchase = SimpleNamespace(type="purchase", credentials=alice, payment_info={"amount": 12})
    browse = SimpleNamespace(type="browse", credentials=alice)
    bought, seen = await asyncio.gather(handle_user_request(purchase), handle_user_request(browse))
    assert bought["status"] == "purchased" and bought["transaction"]["amount"] == 12, bought
    assert seen == {"recommendations": ["item 10", "item 2"]}, seen
    browse.credentials = {"name": "alice", "password": "guess"}
    try:
        await handle_user_request(browse)
    except RemoteError as error:
        assert error.type == "PermissionError", error
    else:
        raise AssertionError("a wrong password was taken")
    print(f"purchase {bought['transaction']['number']}, {len(seen['recommendations'])} recommendations")


asyncio.run(main())
