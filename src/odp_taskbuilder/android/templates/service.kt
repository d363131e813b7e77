package {{package}}

import android.adservices.ondevicepersonalization.IsolatedService
import android.adservices.ondevicepersonalization.IsolatedWorker
import android.adservices.ondevicepersonalization.RequestToken

/** What the phone binds to, in a process without network and without the app's files. */
class {{service}} : IsolatedService() {
    override fun onRequest(requestToken: RequestToken): IsolatedWorker =
        {{service}}Worker(getFederatedComputeScheduler(requestToken), getRemoteData(requestToken))
}
