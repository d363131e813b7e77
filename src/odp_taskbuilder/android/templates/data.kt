package {{package}}

import android.adservices.ondevicepersonalization.KeyValueStore

/**
 * Where training examples come from. This file is yours: odp-task never replaces it.
 *
 * As it stands, examples are the downloaded values whose keys begin with the population's name and a slash, in the order of the keys:
 * enough to see a phone train. An app makes its own with [{{service}}Examples].
 */
internal class {{service}}Data(private val remoteData: KeyValueStore) {
    /**
     * All examples of a population that this phone has, each time in the same order.
     *
     * [collection] is what the task's selector names; null where it names none.
     */
    fun examples(population: String, collection: String?): List<ByteArray> =
        remoteData.keySet().filter { it.startsWith("$population/") }.sorted().mapNotNull { remoteData.get(it) }
}
