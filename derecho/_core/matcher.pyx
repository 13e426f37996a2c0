# The matcher: compares what the code asks for on replay with what is recorded, command by command.
#
# Kind, name and target must be equal. A different input (or duration, or result) is noted in `differences`, and is
# a mismatch only in strict mode: payload formats may change in harmless ways between versions of the user's code.

cdef str _identity_differs(Command command, object event):
    """Return what makes this another command than the recorded one, or None."""
    cdef int code = command.code
    if code == ACTIVITY_SCHEDULED:
        if event.name != command.name:
            return "name"
    elif code == TIMER_CANCELLED:
        if event.scheduled_by_id != command.answers.event_id:
            return "timer"
    elif code == SIGNAL_EXTERNAL_SCHEDULED:
        if event.target_workflow_id != command.target or event.signal_name != command.name:
            return "target"
    elif code == CHILD_WORKFLOW_SCHEDULED:
        if event.workflow_type != command.name or event.workflow_id != command.target:
            return "child"
    return None


cdef str _content_differs(Command command, object event):
    """Return which content differs from the recorded one, or None."""
    cdef int code = command.code
    if code == ACTIVITY_SCHEDULED or code == CHILD_WORKFLOW_SCHEDULED:
        return None if event.input == command.payload else "input"
    if code == TIMER_SCHEDULED:
        return None if event.duration_ns == command.duration_ns else "duration"
    if code == SIGNAL_EXTERNAL_SCHEDULED:
        return None if event.payload == command.payload else "payload"
    if code == WORKFLOW_COMPLETED:
        return None if event.result == command.payload else "result"
    if code == CONTINUED_AS_NEW:
        return None if event.new_input == command.payload else "input"
    if code == WORKFLOW_FAILED:
        return None if event.error == command.payload else "error"
    return None
