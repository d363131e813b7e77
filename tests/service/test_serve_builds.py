"""Builds through the server: what it answers, and what is where afterwards."""

import pytest
from serving_process import *

@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "models" / "digits")


def test_x(model, tmp_path, cloud):
    import time
    t=time.time()
    with running_server("--allow_read", str(model.parent), "--allow_write", str(tmp_path/"out"), "--task_management_server", cloud.task_server.url) as s:
        print(time.time()-t)
        print(requests.get(s.url+"/ready").text)
        r=parsed(s.post(build_request(model, config(folder=str(tmp_path/"out"/"a"), evaluation=True)), artifacts=True))
        print(r, time.time()-t)
        r=parsed(s.post(build_request(model, config(evaluation=True))))
        print(r, time.time()-t)
        for n in ("crash","error-config","error-model","error-untrusted","error-privacy","error-ops","error-defect","garbage","link","memory-100000000000"):
            r=parsed(s.post(build_request(model, config(n)),))
            print(n, r, time.time()-t)
        print(s.stop(), time.time()-t)
        for l in s.log: print(l)
    assert 0
