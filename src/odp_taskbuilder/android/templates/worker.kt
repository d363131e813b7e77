package {{package}}

{{imports}}

/**
 * Answers the phone: training examples when it trains, scheduling when the app or a download asks for it.
 *
 * An app asks with [KEY_ACTION] and [KEY_POPULATION] among the parameters of OnDevicePersonalizationManager.execute.
 */
class {{service}}Worker(private val scheduler: FederatedComputeScheduler, remoteData: KeyValueStore) : IsolatedWorker {
    private val data = {{service}}Data(remoteData)

{{callbacks}}

    private fun act(action: String?, population: String?) {
        for (each in if (population == null) POPULATIONS else listOf(population)) {
            require(each in POPULATIONS) { "No task of this app is of population $each" }
            when (action) {
                SCHEDULE -> schedule(each)
                CANCEL -> scheduler.cancel(FederatedComputeInput.Builder().setPopulationName(each).build())
                else -> throw IllegalArgumentException("Unknown action $action")
            }
        }
    }

    /** A download is complete whether or not training could be scheduled. */
    private fun scheduleAll() {
        try {
            act(SCHEDULE, null)
        } catch (exception: RuntimeException) {
            Log.e(TAG, "Not scheduled", exception)
        }
    }

    private fun schedule(population: String) {
        val interval =
            TrainingInterval.Builder()
                .setMinimumInterval(MINIMUM_INTERVAL)
                .setSchedulingMode(TrainingInterval.SCHEDULING_MODE_RECURRENT)
                .build()
        scheduler.schedule(
            FederatedComputeScheduler.Params(interval),
            FederatedComputeInput.Builder().setPopulationName(population).build()
        )
    }

    companion object {
        /** [SCHEDULE] or [CANCEL]. */
        const val KEY_ACTION = "action"

        /** A population of [{{service}}Examples]; all of them where there is none. */
        const val KEY_POPULATION = "population"

        const val SCHEDULE = "schedule"
        const val CANCEL = "cancel"

        private const val TAG = "{{service}}"{{error_codes}}

        /** How long a phone waits between two trainings, at least. Phones train when they are idle, charged and on an unmetered network. */
        private val MINIMUM_INTERVAL: Duration = Duration.ofHours(24)

        private val POPULATIONS = listOf({{populations}})

        /** Calls come on a thread of the phone's that must not wait, and scheduling takes seconds. */
        private val EXECUTOR = Executors.newSingleThreadExecutor()

        /** The position after that of the last example that the phone trained on; 0 where it has trained on none, or on all. */
        private fun firstPosition(resumptionToken: ByteArray?, size: Int): Int {
            if (resumptionToken == null || resumptionToken.size != 4) return 0
            val next = ByteBuffer.wrap(resumptionToken).getInt()
            return if (next in 1 until size) next else 0
        }

        private fun resumptionToken(position: Int): ByteArray = ByteBuffer.allocate(4).putInt(position + 1).array()
    }
}
