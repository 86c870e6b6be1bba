"""The public API as type checkers see it: read by mypy and pyright, never run.

One `assert_type` for each public call, sync and async, so that a change of what users' editors
infer is seen here first. To be filled with the names of `agentguard.__all__` as they arrive:

    @tool_contract(effect="read")
    def look_up(ticket_id: str) -> Ticket: ...

    assert_type(look_up("T-1"), Ticket)
"""
