"""Fine-tunes on a shared GPU with the team's token, which is stored under the name `team_token`."""

import asyncio

from easyremote import remote

test_data = ["good", "bad"]


# Startup using shared GPU resources for development
@remote(node_id="shared-gpu-01", auth_token="team_token")
def fine_tune_model(base_model, custom_data):
    pass

@remote(node_id="inference-cluster", scaling="auto")
def serve_model_inference(model_id, input_data):
    pass

# Cost-effective AI development
async def develop_ai_feature(user_data):
    # Fine-tune model for specific use case
    custom_model = await fine_tune_model("gpt-3.5-turbo", user_data)
    
    # Deploy for inference
    inference_endpoint = await serve_model_inference(custom_model.id, test_data)
    
    return inference_endpoint


endpoint = asyncio.run(develop_ai_feature(["a", "b", "c"]))
assert endpoint["answers"] == ["GOOD", "BAD"] and endpoint["model"].startswith("model-"), endpoint
print(f"{endpoint['model']} answers")
