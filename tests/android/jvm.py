"""Compiling and running what an app gets: a JDK, Kotlin's compiler where there is one, and stubs of Android's API.

The stubs hold the published names (developer.android.com/reference/android/adservices/ondevicepersonalization) that the generated
sources use, and nothing that does anything.
"""

import base64
import os
import shutil
import subprocess

import numpy as np
import pytest

_ODP = "android.adservices.ondevicepersonalization"
_BUILT = [
    "DownloadCompletedOutput",
    "ExecuteOutput",
    "TrainingExamplesOutput",
    "TrainingExampleOutput",
    "TrainingExampleRecord",
]
_BUILDER_METHODS = {
    "DownloadCompletedOutput": "public Builder setRetainedKeys(java.util.List<String> value) { return this; }",
    "ExecuteOutput": "",
    "TrainingExamplesOutput": "public Builder addTrainingExampleRecord(TrainingExampleRecord value) { return this; }",
    "TrainingExampleOutput": "public Builder addTrainingExample(byte[] value) { return this; } "
    "public Builder addResumptionToken(byte[] value) { return this; }",
    "TrainingExampleRecord": "public Builder setTrainingExample(byte... value) { return this; } "
    "public Builder setResumptionToken(byte... value) { return this; }",
}
_INPUTS = {
    "ExecuteInput": "public android.os.PersistableBundle getAppParams() { return null; }",
    "DownloadCompletedInput": "public KeyValueStore getDownloadedContents() { return null; }",
    "TrainingExamplesInput": "public String getPopulationName() { return null; } public String getTaskName() { return null; } "
    "public byte[] getResumptionToken() { return null; } public String getCollectionName() { return null; }",
    "TrainingExampleInput": "public String getPopulationName() { return null; } public String getTaskName() { return null; } "
    "public byte[] getResumptionToken() { return null; }",
    "RequestToken": "",
}
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
    classes = {
        f"{_ODP}.{name}": f"public final class {name} {{ public static final class Builder {{ {_BUILDER_METHODS[name]} "
        f"public {name} build() {{ return null; }} }} }}"
        for name in _BUILT
    }
    classes |= {f"{_ODP}.{name}": f"public final class {name} {{ {methods} }}" for name, methods in _INPUTS.items()}
    classes |= {
        f"{_ODP}.IsolatedServiceException": "public final class IsolatedServiceException extends Exception { "
        "public IsolatedServiceException(int errorCode) {} }",
        f"{_ODP}.IsolatedWorker": f"public interface IsolatedWorker {{ {_worker(api)} }}",
        f"{_ODP}.KeyValueStore": "public interface KeyValueStore { byte[] get(String key); java.util.Set<String> keySet(); }",
        f"{_ODP}.IsolatedService": "public abstract class IsolatedService { public abstract IsolatedWorker onRequest(RequestToken requestToken); "
        "public final KeyValueStore getRemoteData(RequestToken requestToken) { return null; } "
        "public final FederatedComputeScheduler getFederatedComputeScheduler(RequestToken requestToken) { return null; } }",
        f"{_ODP}.FederatedComputeScheduler": "public class FederatedComputeScheduler { "
        "public void schedule(Params params, FederatedComputeInput input) {} public void cancel(FederatedComputeInput input) {} "
        "public static class Params { public Params(TrainingInterval trainingInterval) {} } }",
        f"{_ODP}.FederatedComputeInput": "public final class FederatedComputeInput { public static final class Builder { "
        "public Builder setPopulationName(String value) { return this; } public FederatedComputeInput build() { return null; } } }",
        f"{_ODP}.TrainingInterval": "public final class TrainingInterval { public static final int SCHEDULING_MODE_ONE_TIME = 1; "
        "public static final int SCHEDULING_MODE_RECURRENT = 2; public static final class Builder { "
        "public Builder setMinimumInterval(java.time.Duration value) { return this; } "
        "public Builder setSchedulingMode(int value) { return this; } public TrainingInterval build() { return null; } } }",
        "android.os.OutcomeReceiver": "public interface OutcomeReceiver<R, E extends Throwable> { void onResult(R result); "
        "default void onError(E error) {} }",
        "android.os.PersistableBundle": "public final class PersistableBundle { public String getString(String key) { return null; } }",
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
        stdlib = os.environ.get("KOTLIN_STDLIB")
        classpath = os.pathsep.join([str(classes), *([stdlib] if stdlib else [])])
        _run([*kotlin.split(), "-cp", classpath, "-d", str(classes), *written])
    return classes


def run(classes, examples_class, lines):
    """What the harness prints for each line."""
    classpath = os.pathsep.join([str(classes), *filter(None, [os.environ.get("KOTLIN_STDLIB")])])
    output = _run(["java", "-cp", classpath, "Harness", examples_class], "".join(f"{line}\n" for line in lines))
    return output.splitlines()


def _run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout
