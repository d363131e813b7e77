package {{package}};

import android.adservices.ondevicepersonalization.IsolatedService;
import android.adservices.ondevicepersonalization.IsolatedWorker;
import android.adservices.ondevicepersonalization.RequestToken;

/** What the phone binds to, in a process without network and without the app's files. */
public class {{service}} extends IsolatedService {
    @Override
    public IsolatedWorker onRequest(RequestToken requestToken) {
        return new {{service}}Worker(getFederatedComputeScheduler(requestToken), getRemoteData(requestToken));
    }
}
