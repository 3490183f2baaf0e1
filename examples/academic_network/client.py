"""`auth` names a stored token: ~/.config/r3mes/tokens/academic_credentials, or R3MES_TOKEN_ACADEMIC_CREDENTIALS."""

import asyncio

from easyremote import remote
from r3mes import AccessDeniedError

climate_params = {"start": 14.0, "years": 100, "forcing": 0.2}


# Researchers from other institutions
@remote(node_id="stanford-hpc", auth="academic_credentials")
def run_climate_simulation(research_proposal_id, params):
    pass


async def main():
    # MIT researcher uses Stanford's resources
    mit_results = await run_climate_simulation("MIT-2024-001", climate_params)
    assert mit_results == {"proposal": "MIT-2024-001", "temperature": 16.0}, mit_results
    user, groups = await remote("stanford-hpc", "who_asks", auth="academic_credentials")()
    assert (user, groups) == ("mit", ["academic_verified"]), (user, groups)
    outsider = remote("stanford-hpc", "run_climate_simulation", auth="alice")
    try:
        await outsider("MIT-2024-001", climate_params)
    except AccessDeniedError as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("somebody of no university was let in")


asyncio.run(main())
