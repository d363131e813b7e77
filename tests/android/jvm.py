"""Compiling and running what an app gets: a JDK, Kotlin's compiler where there is one, and stubs of Android's API.

The stubs hold the published names (developer.android.com/reference/android/adservices/ondevicepersonalization) that the generated
sources use, and nothing that does anything.
"""

import base64
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

_ODP = "android.adservices.ondevicepersonalization"
# What is built -> its properties: (type, name, what the builder's method is called).
_BUILT = {
    "DownloadCompletedOutput": [("java.util.List<String>", "retainedKeys", "setRetainedKeys")],
    "ExecuteOutput": [],
    "TrainingExamplesOutput": [("java.util.List<TrainingExampleRecord>", "trainingExampleRecords", "addTrainingExampleRecord")],
    "TrainingExampleOutput": [
        ("java.util.List<byte[]>", "trainingExamples", "addTrainingExample"),
        ("java.util.List<byte[]>", "resumptionTokens", "addResumptionToken"),
    ],
    "TrainingExampleRecord": [
        ("byte...", "trainingExample", "setTrainingExample"),
        ("byte...", "resumptionToken", "setResumptionToken"),
    ],
    "FederatedComputeInput": [("String", "populationName", "setPopulationName")],
    "TrainingInterval": [
        ("java.time.Duration", "minimumInterval", "setMinimumInterval"),
        ("int", "schedulingMode", "setSchedulingMode"),
    ],
}
_CONSTANTS = {
    "TrainingInterval": "public static final int SCHEDULING_MODE_ONE_TIME = 1; public static final int SCHEDULING_MODE_RECURRENT = 2; ",
}


def _built(name):
    """A class that holds what its builder was given."""
    fields = methods = getters = ""
    for kind, field, method in _BUILT[name]:
        held = kind.replace("...", "[]")
        if method.startswith("add"):
            fields += f"private final {held} {field} = new java.util.ArrayList<>(); "
            body = f"made.{field}.add(value);"
            kind = held[held.index("<") + 1 : -1]
        else:
            fields += f"private {held} {field}; "
            body = f"made.{field} = value;"
        methods += f"public Builder {method}({kind} value) {{ {body} return this; }} "
        getters += f"public {held} get{field[0].upper()}{field[1:]}() {{ return {field}; }} "
    return (
        f"public final class {name} {{ {_CONSTANTS.get(name, '')}{fields}{getters}public static final class Builder {{ "
        f"private final {name} made = new {name}(); {methods}public {name} build() {{ return made; }} }} }}"
    )


# What the phone hands over, and what it holds.
_INPUTS = {
    "ExecuteInput": [("android.os.PersistableBundle", "appParams")],
    "DownloadCompletedInput": [("KeyValueStore", "downloadedContents")],
    "TrainingExamplesInput": [("String", "populationName"), ("byte[]", "resumptionToken"), ("String", "taskName"), ("String", "collectionName")],
    "TrainingExampleInput": [("String", "populationName"), ("byte[]", "resumptionToken"), ("String", "taskName")],
    "RequestToken": [],
}


def _input(name):
    fields = _INPUTS[name]
    parameters = ", ".join(f"{kind} {field}" for kind, field in fields)
    body = "".join(f"this.{field} = {field}; " for _, field in fields)
    held = "".join(
        f"private final {kind} {field}; public {kind} get{field[0].upper()}{field[1:]}() {{ return {field}; }} "
        for kind, field in fields
    )
    return f"public final class {name} {{ {held}public {name}({parameters}) {{ {body}}} }}"


_RECEIVER = "android.os.OutcomeReceiver<{}, IsolatedServiceException> receiver"
_CONSUMER = "java.util.function.Consumer<{}> consumer"


def _worker(api):
    receiver = _RECEIVER if api == "released" else _CONSUMER
    training = "TrainingExamples" if api == "released" else "TrainingExample"
    methods = {f"on{training}": training, "onExecute": "Execute", "onDownloadCompleted": "DownloadCompleted"}
    return "".join(
        f"default void {method}({name}Input input, {receiver.format(name + 'Output')}) {{}}\n"
        for method, name in methods.items()
    )


def api_stubs(api):
    """Path -> Java source."""
    classes = {f"{_ODP}.{name}": _built(name) for name in _BUILT}
    classes |= {f"{_ODP}.{name}": _input(name) for name in _INPUTS}
    classes |= {
        f"{_ODP}.IsolatedServiceException": "public final class IsolatedServiceException extends Exception { private final int errorCode; "
        "public IsolatedServiceException(int errorCode) { this.errorCode = errorCode; } public int getErrorCode() { return errorCode; } }",
        f"{_ODP}.IsolatedWorker": f"public interface IsolatedWorker {{ {_worker(api)} }}",
        f"{_ODP}.KeyValueStore": "public interface KeyValueStore { byte[] get(String key); java.util.Set<String> keySet(); }",
        # A phone's own answers are final and of another class; a test hands in its own.
        f"{_ODP}.IsolatedService": "public abstract class IsolatedService { public static KeyValueStore remoteData; "
        "public static FederatedComputeScheduler scheduler; public abstract IsolatedWorker onRequest(RequestToken requestToken); "
        "public final KeyValueStore getRemoteData(RequestToken requestToken) { return remoteData; } "
        "public final FederatedComputeScheduler getFederatedComputeScheduler(RequestToken requestToken) { return scheduler; } }",
        f"{_ODP}.FederatedComputeScheduler": "public class FederatedComputeScheduler { "
        "public void schedule(Params params, FederatedComputeInput input) {} public void cancel(FederatedComputeInput input) {} "
        "public static class Params { private final TrainingInterval trainingInterval; "
        "public TrainingInterval getTrainingInterval() { return trainingInterval; } "
        "public Params(TrainingInterval trainingInterval) { this.trainingInterval = trainingInterval; } } }",
        "android.os.OutcomeReceiver": "public interface OutcomeReceiver<R, E extends Throwable> { void onResult(R result); "
        "default void onError(E error) {} }",
        "android.os.PersistableBundle": "public final class PersistableBundle { "
        "private final java.util.Map<String, String> strings = new java.util.HashMap<>(); "
        "public void putString(String key, String value) { strings.put(key, value); } "
        "public String getString(String key) { return strings.get(key); } }",
        "android.util.Log": "public final class Log { public static int e(String tag, String message, Throwable throwable) { return 0; } }",
    }
    return {
        f"{name.replace('.', '/')}.java": f"package {name.rpartition('.')[0]};\n\n{source}\n"
        for name, source in classes.items()
    }


_HARNESS = """
import java.io.*;
import java.lang.reflect.*;
import java.util.*;

/** Reads a method and its arguments a line; prints what it returns in base64, or the message of what it throws. */
public class Harness {
    public static void main(String[] arguments) throws Exception {
        Class<?> examples = Class.forName(arguments[0]);
        Object instance = null;
        try {
            instance = examples.getField("INSTANCE").get(null);
        } catch (NoSuchFieldException exception) {
            // Its methods are static.
        }
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = in.readLine()) != null; ) {
            String[] parts = line.split(" ", -1);
            for (Method method : examples.getMethods()) {
                if (method.getName().equals(parts[0])) {
                    Object[] values = new Object[parts.length - 1];
                    for (int i = 0; i < values.length; i++) {
                        values[i] = value(method.getParameterTypes()[i], parts[i + 1]);
                    }
                    try {
                        System.out.println(Base64.getEncoder().encodeToString((byte[]) method.invoke(instance, values)));
                    } catch (InvocationTargetException exception) {
                        System.out.println("! " + exception.getCause());
                    }
                }
            }
        }
    }

    private static Object value(Class<?> type, String text) {
        String[] items = text.equals("-") ? new String[0] : text.split(",");
        if (type == float.class) {
            return Float.intBitsToFloat(Integer.parseUnsignedInt(text, 16));
        } else if (type == long.class) {
            return Long.parseLong(text);
        } else if (type == byte[].class) {
            return Base64.getDecoder().decode(text.substring(1));
        }
        Object array = Array.newInstance(type.getComponentType(), items.length);
        for (int i = 0; i < items.length; i++) {
            Array.set(array, i, value(type.getComponentType(), items[i]));
        }
        return array;
    }
}
"""

_WORKER_HARNESS = """
import android.adservices.ondevicepersonalization.*;
import android.os.*;
import java.io.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.*;
import java.util.stream.*;

/** Plays the phone: reads a request a line, asks the service, and prints what it answers and what it had scheduled. */
public class WorkerHarness {
    private static final List<String> scheduled = Collections.synchronizedList(new ArrayList<>());

    public static void main(String[] arguments) throws Exception {
        TreeMap<String, byte[]> stored = new TreeMap<>();
        for (String key : arguments[1].split(",")) {
            stored.put(key, key.getBytes("UTF-8"));
        }
        KeyValueStore store = new KeyValueStore() {
            @Override
            public byte[] get(String key) {
                return stored.get(key);
            }

            @Override
            public Set<String> keySet() {
                return stored.keySet();
            }
        };
        IsolatedService.remoteData = store;
        IsolatedService.scheduler = new FederatedComputeScheduler() {
            @Override
            public void schedule(Params params, FederatedComputeInput input) {
                TrainingInterval interval = params.getTrainingInterval();
                scheduled.add("schedule " + input.getPopulationName() + " " + interval.getSchedulingMode() + " " + interval.getMinimumInterval());
            }

            @Override
            public void cancel(FederatedComputeInput input) {
                scheduled.add("cancel " + input.getPopulationName());
            }
        };
        IsolatedService service = (IsolatedService) Class.forName(arguments[0]).getConstructor().newInstance();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = in.readLine()) != null; ) {
            String[] words = line.split(" ", -1);
            IsolatedWorker worker = service.onRequest(new RequestToken());
            CompletableFuture<String> told = new CompletableFuture<>();
            if (words[0].equals("train")) {
                // A copy: a name is compared by what it says, not by being the same object.
                String population = new String(words[1].toCharArray());
                byte[] token = words[2].equals("-") ? null : Base64.getDecoder().decode(words[2]);
                TRAIN
            } else if (words[0].equals("execute")) {
                PersistableBundle parameters = new PersistableBundle();
                parameters.putString("action", words[1]);
                if (!words[2].equals("-")) {
                    parameters.putString("population", words[2]);
                }
                worker.onExecute(new ExecuteInput(parameters), answer(told, output -> "executed"));
            } else {
                worker.onDownloadCompleted(new DownloadCompletedInput(store), answer(told, output -> String.join(" ", output.getRetainedKeys())));
            }
            System.out.println(Stream.concat(Stream.of(told.get(60, TimeUnit.SECONDS)), scheduled.stream()).collect(Collectors.joining("; ")));
            scheduled.clear();
        }
        System.exit(0);
    }

    private static String pair(byte[] example, byte[] token) {
        return new String(example, java.nio.charset.StandardCharsets.UTF_8) + "=" + Base64.getEncoder().encodeToString(token);
    }
    HELPER
}
"""
_TRAIN = {
    "released": """worker.onTrainingExamples(new TrainingExamplesInput(population, token, "a task", null),
                        answer(told, output -> output.getTrainingExampleRecords().stream()
                                .map(each -> pair(each.getTrainingExample(), each.getResumptionToken())).collect(Collectors.joining(" "))));""",
    "guide": """worker.onTrainingExample(new TrainingExampleInput(population, token, "a task"),
                        answer(told, output -> IntStream.range(0, output.getTrainingExamples().size())
                                .mapToObj(i -> pair(output.getTrainingExamples().get(i), output.getResumptionTokens().get(i)))
                                .collect(Collectors.joining(" "))));""",
}


_ANSWER = {
    "released": """
    private static <T> OutcomeReceiver<T, IsolatedServiceException> answer(CompletableFuture<String> told, Function<T, String> text) {
        return new OutcomeReceiver<T, IsolatedServiceException>() {
            @Override
            public void onResult(T output) {
                told.complete(text.apply(output));
            }

            @Override
            public void onError(IsolatedServiceException error) {
                told.complete("error " + error.getErrorCode());
            }
        };
    }
""",
    "guide": """
    private static <T> Consumer<T> answer(CompletableFuture<String> told, Function<T, String> text) {
        return output -> told.complete(text.apply(output));
    }
""",
}


def ask_worker(classes, service, keys, requests):
    """What the service answers to each request, and what it had scheduled; `keys` are those of the downloaded values, whose bytes are the key."""
    output = _run(["java", "-cp", _classpath(classes), "WorkerHarness", service, ",".join(keys)], "".join(f"{line}\n" for line in requests))
    return output.splitlines()


def argument(values):
    """One array as the harness reads it."""
    if values.dtype == np.float32:
        items = [f"{bits:08x}" for bits in values.ravel().view(np.uint32)]
    elif values.dtype == np.int64:
        items = list(map(str, values.ravel()))
    else:
        items = [f".{base64.b64encode(value).decode()}" for value in values.ravel()]
    return ",".join(items) or "-"


def compile_app(directory, files, language, api="released"):
    """Writes and compiles the sources of an app with stubs and harness; a directory for `run`. Skips where there is no compiler."""
    compiler = shutil.which("javac")
    # The command line of another one, for example "java -cp ... org.jetbrains.kotlin.cli.jvm.K2JVMCompiler".
    kotlin = os.environ.get("KOTLINC", "kotlinc")
    if compiler is None or shutil.which("java") is None:
        pytest.skip("there is no JDK")
    if language == "kotlin" and shutil.which(kotlin.split()[0]) is None:
        pytest.skip("there is no Kotlin compiler")
    sources = {**api_stubs(api), "Harness.java": _HARNESS}
    sources["WorkerHarness.java"] = _WORKER_HARNESS.replace("TRAIN\n", f"{_TRAIN[api]}\n").replace("HELPER\n", f"{_ANSWER[api].strip()}\n")
    suffix = {"java": ".java", "kotlin": ".kt"}[language]
    sources |= {name: content for name, content in files.items() if name.endswith(suffix)}
    for name, content in sources.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    classes = directory / "classes"
    java = sorted(str(directory / name) for name in sources if name.endswith(".java"))
    # The sources are ASCII: whatever the encoding that a build assumes, they mean the same.
    _run(
        [
            compiler,
            "--release",
            "8",
            "-encoding",
            "US-ASCII",
            "-Xlint:all,-options,-serial",
            "-Werror",
            "-d",
            str(classes),
            *java,
        ]
    )
    if language == "kotlin":
        written = sorted(str(directory / name) for name in sources if name.endswith(".kt"))
        _run([*kotlin.split(), "-cp", _classpath(classes), "-d", str(classes), *written])
    return classes


def run(classes, examples_class, lines):
    """What the harness prints for each line."""
    output = _run(["java", "-cp", _classpath(classes), "Harness", examples_class], "".join(f"{line}\n" for line in lines))
    return output.splitlines()


def _classpath(classes):
    """With Kotlin's library, which lies beside its compiler or, in Debian's package, with all others."""
    compiler = pathlib.Path(shutil.which("kotlinc") or "kotlinc").resolve()
    places = [os.environ.get("KOTLIN_STDLIB"), compiler.parent.parent / "lib" / "kotlin-stdlib.jar", "/usr/share/java/kotlin-stdlib.jar"]
    library = next((str(place) for place in places if place and os.path.exists(place)), None)
    return os.pathsep.join([str(classes), *filter(None, [library])])


def _run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout
