package {{package}};

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/**
 * The training examples that the tasks of this app take, as serialized tf.train.Example messages.
 *
 * <p>Made by odp-task from the tasks; make it again when a task's features change.
 */
public final class {{service}}Examples {
    /** Phones drop an example that is larger. */
    public static final int MAX_EXAMPLE_BYTES = {{max_example_bytes}};

{{constants}}

{{methods}}

    /** The bytes of a text, for features that hold strings. */
    public static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private {{service}}Examples() {}

    /** Entries come in the order of their names: one example has one serialization. */
    private static byte[] example(byte[]... entries) {
        byte[] features = concatenated(entries);
        byte[] example = field(1, features);
        if (example.length > MAX_EXAMPLE_BYTES) {
            throw new IllegalArgumentException(
                    "The example has " + example.length + " bytes; phones take " + MAX_EXAMPLE_BYTES);
        }
        return example;
    }

    private static byte[] entry(String name, byte[] feature) {
        return field(1, concatenated(field(1, name.getBytes(StandardCharsets.UTF_8)), field(2, feature)));
    }

    private static byte[] strings(String name, int size, byte[]... values) {
        checkSize(name, size, values.length);
        byte[][] fields = new byte[values.length][];
        for (int i = 0; i < values.length; i++) {
            fields[i] = field(1, values[i]);
        }
        return field(1, concatenated(fields));
    }

    private static byte[] floats(String name, int size, float... values) {
        checkSize(name, size, values.length);
        ByteBuffer packed = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
        for (float value : values) {
            packed.putInt(Float.floatToRawIntBits(value));
        }
        return field(2, values.length == 0 ? new byte[0] : field(1, packed.array()));
    }

    private static byte[] integers(String name, int size, long... values) {
        checkSize(name, size, values.length);
        ByteArrayOutputStream packed = new ByteArrayOutputStream();
        for (long value : values) {
            varint(packed, value);
        }
        return field(3, values.length == 0 ? new byte[0] : field(1, packed.toByteArray()));
    }

    private static void checkSize(String name, int size, int found) {
        if (found != size) {
            throw new IllegalArgumentException("Feature " + name + " has " + found + " values; the task takes " + size);
        }
    }

    /** A field of a message that is as long as it says: tag, length, content. */
    private static byte[] field(int number, byte[] content) {
        ByteArrayOutputStream out = new ByteArrayOutputStream(content.length + 8);
        varint(out, number << 3 | 2);
        varint(out, content.length);
        out.write(content, 0, content.length);
        return out.toByteArray();
    }

    private static void varint(ByteArrayOutputStream out, long value) {
        while ((value & ~0x7FL) != 0) {
            out.write((int) (value & 0x7F | 0x80));
            value >>>= 7;
        }
        out.write((int) value);
    }

    private static byte[] concatenated(byte[]... parts) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (byte[] part : parts) {
            out.write(part, 0, part.length);
        }
        return out.toByteArray();
    }
}
