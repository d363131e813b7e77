    @Override
    public void onTrainingExample(TrainingExampleInput input, Consumer<TrainingExampleOutput> consumer) {
        EXECUTOR.execute(() -> consumer.accept(trainingExamples(input)));
    }

    private TrainingExampleOutput trainingExamples(TrainingExampleInput input) {
        TrainingExampleOutput.Builder output = new TrainingExampleOutput.Builder();
        if (!POPULATIONS.contains(input.getPopulationName())) {
            return output.build();
        }
        List<byte[]> examples = data.examples(input.getPopulationName(), null);
        for (int i = firstPosition(input.getResumptionToken(), examples.size()); i < examples.size(); i++) {
            output.addTrainingExample(examples.get(i));
            output.addResumptionToken(resumptionToken(i));
        }
        return output.build();
    }

    @Override
    public void onExecute(ExecuteInput input, Consumer<ExecuteOutput> consumer) {
        EXECUTOR.execute(() -> {
            PersistableBundle parameters = input.getAppParams();
            act(parameters.getString(KEY_ACTION), parameters.getString(KEY_POPULATION));
            consumer.accept(new ExecuteOutput.Builder().build());
        });
    }

    @Override
    public void onDownloadCompleted(DownloadCompletedInput input, Consumer<DownloadCompletedOutput> consumer) {
        EXECUTOR.execute(() -> {
            // Keys that are not retained are deleted from the phone's table.
            List<String> keys = new ArrayList<>(input.getDownloadedContents().keySet());
            scheduleAll();
            consumer.accept(new DownloadCompletedOutput.Builder().setRetainedKeys(keys).build());
        });
    }
