"""Bad moments of a store are tried again, a bounded number of times; refusals are not."""

import pytest

from scaleinv_ray.store import patience
from scaleinv_ray.store.patience import TRIES, passes, patient, refused

SLOW = "When uploading part for key 'x': AWS Error SLOW_DOWN during UploadPart operation: slow"
PASSING = [
    OSError(SLOW),
    OSError("AWS Error INTERNAL_FAILURE during GetObject operation: Failed to flush response"),
    OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body."),
    OSError("AWS Error UNKNOWN (HTTP status 429) during HeadObject operation: No response body."),
    OSError("AWS Error NETWORK_CONNECTION during PutObject: curlCode: 28, Timeout was reached"),
    OSError("google::cloud::Status(UNAVAILABLE: try again)"),
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(110, "Connection timed out"),
]
REFUSALS = [
    OSError("AWS Error ACCESS_DENIED during UploadPart operation: no"),
    OSError("AWS Error NO_SUCH_BUCKET during UploadPart operation: no"),
    OSError("AWS Error UNKNOWN (HTTP status 403) during HeadObject operation: No response body."),
    OSError("AWS Error INVALID_ACCESS_KEY_ID during HeadObject operation"),
    PermissionError(13, "Permission denied"),
]
OTHERS = [OSError(28, "No space left on device"), FileNotFoundError(2, "x"), ValueError(SLOW)]


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_what_passes_is_no_refusal(error: Exception) -> None:
    assert passes(error) and not refused(error)


@pytest.mark.parametrize("error", [*REFUSALS, *OTHERS], ids=str)
def test_what_another_try_cannot_mend_does_not_pass(error: Exception) -> None:
    assert not passes(error)


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_a_refusal_is_known(error: Exception) -> None:
    assert refused(error)


@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ([], 1),
        ([OSError(SLOW)] * (TRIES - 1), TRIES),
        ([OSError(SLOW)] * 99, TRIES),
        ([OSError(SLOW), PermissionError("no")], 2),
        ([OSError(28, "No space left on device")], 1),
        ([ValueError(SLOW)], 1),
    ],
)
def test_so_many_tries_and_no_more(
    errors: list[Exception], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", waited.append)
    left, made = [*errors], []

    @patient
    def work(value: int) -> int:
        made.append(value)
        if left:
            raise left.pop(0)
        return value

    if len(errors) < calls:
        assert work(7) == 7
    else:
        with pytest.raises(type(errors[calls - 1])):
            work(7)
    assert made == [7] * calls and len(waited) == calls - 1
    assert all(0.25 * 2**i <= s <= 0.75 * 2**i for i, s in enumerate(waited)), "ever longer"
