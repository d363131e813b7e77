    override fun onTrainingExamples(
        input: TrainingExamplesInput,
        receiver: OutcomeReceiver<TrainingExamplesOutput, IsolatedServiceException>
    ) {
        EXECUTOR.execute {
            val output =
                try {
                    trainingExamples(input)
                } catch (exception: RuntimeException) {
                    Log.e(TAG, "No training examples", exception)
                    receiver.onError(IsolatedServiceException(ERROR_TRAINING_EXAMPLES))
                    return@execute
                }
            receiver.onResult(output)
        }
    }

    private fun trainingExamples(input: TrainingExamplesInput): TrainingExamplesOutput {
        val output = TrainingExamplesOutput.Builder()
        if (input.populationName !in POPULATIONS) return output.build()
        val examples = data.examples(input.populationName, input.collectionName)
        for (i in firstPosition(input.resumptionToken, examples.size) until examples.size) {
            output.addTrainingExampleRecord(
                TrainingExampleRecord.Builder()
                    .setTrainingExample(*examples[i])
                    .setResumptionToken(*resumptionToken(i))
                    .build()
            )
        }
        return output.build()
    }

    override fun onExecute(input: ExecuteInput, receiver: OutcomeReceiver<ExecuteOutput, IsolatedServiceException>) {
        EXECUTOR.execute {
            try {
                act(input.appParams.getString(KEY_ACTION), input.appParams.getString(KEY_POPULATION))
            } catch (exception: RuntimeException) {
                Log.e(TAG, "Not executed", exception)
                receiver.onError(IsolatedServiceException(ERROR_EXECUTE))
                return@execute
            }
            receiver.onResult(ExecuteOutput.Builder().build())
        }
    }

    override fun onDownloadCompleted(
        input: DownloadCompletedInput,
        receiver: OutcomeReceiver<DownloadCompletedOutput, IsolatedServiceException>
    ) {
        EXECUTOR.execute {
            // Keys that are not retained are deleted from the phone's table.
            val keys = input.downloadedContents.keySet().toList()
            scheduleAll()
            receiver.onResult(DownloadCompletedOutput.Builder().setRetainedKeys(keys).build())
        }
    }
