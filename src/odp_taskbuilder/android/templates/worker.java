package {{package}};

{{imports}}

/**
 * Answers the phone: training examples when it trains, scheduling when the app or a download asks for it.
 *
 * <p>An app asks with {@link #KEY_ACTION} and {@link #KEY_POPULATION} among the parameters of OnDevicePersonalizationManager.execute.
 */
public class {{service}}Worker implements IsolatedWorker {
    /** {@link #SCHEDULE} or {@link #CANCEL}. */
    public static final String KEY_ACTION = "action";

    /** A population of {@link {{service}}Examples}; all of them where there is none. */
    public static final String KEY_POPULATION = "population";

    public static final String SCHEDULE = "schedule";
    public static final String CANCEL = "cancel";

    private static final String TAG = "{{service}}";{{error_codes}}

    /** How long a phone waits between two trainings, at least. Phones train when they are idle, charged and on an unmetered network. */
    private static final Duration MINIMUM_INTERVAL = Duration.ofHours(24);

    private static final List<String> POPULATIONS = Arrays.asList({{populations}});

    /** Calls come on a thread of the phone's that must not wait, and scheduling takes seconds. */
    private static final ExecutorService EXECUTOR = Executors.newSingleThreadExecutor();

    private final FederatedComputeScheduler scheduler;
    private final {{service}}Data data;

    {{service}}Worker(FederatedComputeScheduler scheduler, KeyValueStore remoteData) {
        this.scheduler = scheduler;
        this.data = new {{service}}Data(remoteData);
    }

{{callbacks}}

    private void act(String action, String population) {
        for (String each : population == null ? POPULATIONS : Collections.singletonList(population)) {
            if (!POPULATIONS.contains(each)) {
                throw new IllegalArgumentException("No task of this app is of population " + each);
            }
            if (SCHEDULE.equals(action)) {
                schedule(each);
            } else if (CANCEL.equals(action)) {
                scheduler.cancel(new FederatedComputeInput.Builder().setPopulationName(each).build());
            } else {
                throw new IllegalArgumentException("Unknown action " + action);
            }
        }
    }

    /** A download is complete whether or not training could be scheduled. */
    private void scheduleAll() {
        try {
            act(SCHEDULE, null);
        } catch (RuntimeException exception) {
            Log.e(TAG, "Not scheduled", exception);
        }
    }

    private void schedule(String population) {
        TrainingInterval interval =
                new TrainingInterval.Builder()
                        .setMinimumInterval(MINIMUM_INTERVAL)
                        .setSchedulingMode(TrainingInterval.SCHEDULING_MODE_RECURRENT)
                        .build();
        scheduler.schedule(
                new FederatedComputeScheduler.Params(interval),
                new FederatedComputeInput.Builder().setPopulationName(population).build());
    }

    /** The position after that of the last example that the phone trained on; 0 where it has trained on none, or on all. */
    private static int firstPosition(byte[] resumptionToken, int size) {
        if (resumptionToken == null || resumptionToken.length != 4) {
            return 0;
        }
        int next = ByteBuffer.wrap(resumptionToken).getInt();
        return next > 0 && next < size ? next : 0;
    }

    private static byte[] resumptionToken(int position) {
        return ByteBuffer.allocate(4).putInt(position + 1).array();
    }
}
