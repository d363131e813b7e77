    override fun onTrainingExample(input: TrainingExampleInput, consumer: Consumer<TrainingExampleOutput>) {
        EXECUTOR.execute { consumer.accept(trainingExamples(input)) }
    }

    private fun trainingExamples(input: TrainingExampleInput): TrainingExampleOutput {
        val output = TrainingExampleOutput.Builder()
        if (input.populationName !in POPULATIONS) return output.build()
        val examples = data.examples(input.populationName, null)
        for (i in firstPosition(input.resumptionToken, examples.size) until examples.size) {
            output.addTrainingExample(examples[i])
            output.addResumptionToken(resumptionToken(i))
        }
        return output.build()
    }

    override fun onExecute(input: ExecuteInput, consumer: Consumer<ExecuteOutput>) {
        EXECUTOR.execute {
            act(input.appParams.getString(KEY_ACTION), input.appParams.getString(KEY_POPULATION))
            consumer.accept(ExecuteOutput.Builder().build())
        }
    }

    override fun onDownloadCompleted(input: DownloadCompletedInput, consumer: Consumer<DownloadCompletedOutput>) {
        EXECUTOR.execute {
            // Keys that are not retained are deleted from the phone's table.
            val keys = input.downloadedContents.keySet().toList()
            scheduleAll()
            consumer.accept(DownloadCompletedOutput.Builder().setRetainedKeys(keys).build())
        }
    }
