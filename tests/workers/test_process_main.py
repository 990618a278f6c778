from pipekit.memory.shared import Arena
from pipekit.workers.process_main import CurrentStep


def test_the_current_step_is_seen_through_shared_memory():
    arena = Arena()
    try:
        current_step, seen = CurrentStep(arena), CurrentStep(Arena(arena.descriptor))
        steps = []
        for _ in current_step.watched('ab', first=6):
            steps.append(seen.read())
            for _ in range(2):
                current_step.begin_step()
                steps.append(seen.read())
        assert steps == [(6, 0), (6, 1), (6, 2), (7, 0), (7, 1), (7, 2)]
        assert seen.read() == (7, 0)
    finally:
        arena.close_descriptor()


def test_without_shared_memory_the_current_step_is_not_known():
    current_step = CurrentStep(None)
    for _ in current_step.watched('a', first=6):
        current_step.begin_step()
    assert CurrentStep(None).read() == (0, 0)
