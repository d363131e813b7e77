    @Override
    public void onTrainingExamples(
            TrainingExamplesInput input, OutcomeReceiver<TrainingExamplesOutput, IsolatedServiceException> receiver) {
        EXECUTOR.execute(() -> {
            TrainingExamplesOutput output;
            try {
                output = trainingExamples(input);
            } catch (RuntimeException exception) {
                Log.e(TAG, "No training examples", exception);
                receiver.onError(new IsolatedServiceException(ERROR_TRAINING_EXAMPLES));
                return;
            }
            receiver.onResult(output);
        });
    }

    private TrainingExamplesOutput trainingExamples(TrainingExamplesInput input) {
        TrainingExamplesOutput.Builder output = new TrainingExamplesOutput.Builder();
        if (!POPULATIONS.contains(input.getPopulationName())) {
            return output.build();
        }
        List<byte[]> examples = data.examples(input.getPopulationName(), input.getCollectionName());
        for (int i = firstPosition(input.getResumptionToken(), examples.size()); i < examples.size(); i++) {
            output.addTrainingExampleRecord(
                    new TrainingExampleRecord.Builder()
                            .setTrainingExample(examples.get(i))
                            .setResumptionToken(resumptionToken(i))
                            .build());
        }
        return output.build();
    }

    @Override
    public void onExecute(ExecuteInput input, OutcomeReceiver<ExecuteOutput, IsolatedServiceException> receiver) {
        EXECUTOR.execute(() -> {
            try {
                PersistableBundle parameters = input.getAppParams();
                act(parameters.getString(KEY_ACTION), parameters.getString(KEY_POPULATION));
            } catch (RuntimeException exception) {
                Log.e(TAG, "Not executed", exception);
                receiver.onError(new IsolatedServiceException(ERROR_EXECUTE));
                return;
            }
            receiver.onResult(new ExecuteOutput.Builder().build());
        });
    }

    @Override
    public void onDownloadCompleted(
            DownloadCompletedInput input, OutcomeReceiver<DownloadCompletedOutput, IsolatedServiceException> receiver) {
        EXECUTOR.execute(() -> {
            // Keys that are not retained are deleted from the phone's table.
            List<String> keys = new ArrayList<>(input.getDownloadedContents().keySet());
            scheduleAll();
            receiver.onResult(new DownloadCompletedOutput.Builder().setRetainedKeys(keys).build());
        });
    }
