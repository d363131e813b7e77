package {{package}};

import android.adservices.ondevicepersonalization.KeyValueStore;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;

/**
 * Where training examples come from. This file is yours: odp-task never replaces it.
 *
 * <p>As it stands, examples are the downloaded values whose keys begin with the population's name and a slash, in the order of the keys:
 * enough to see a phone train. An app makes its own with {@link {{service}}Examples}.
 */
final class {{service}}Data {
    private final KeyValueStore remoteData;

    {{service}}Data(KeyValueStore remoteData) {
        this.remoteData = remoteData;
    }

    /**
     * All examples of a population that this phone has, each time in the same order.
     *
     * @param collection what the task's selector names; null where it names none
     */
    List<byte[]> examples(String population, String collection) {
        List<byte[]> examples = new ArrayList<>();
        for (String key : new TreeSet<>(remoteData.keySet())) {
            if (key.startsWith(population + "/")) {
                examples.add(remoteData.get(key));
            }
        }
        return examples;
    }
}
