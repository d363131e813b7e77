"""Data of many clients: read in the formats that people have, made by partitioning a real dataset, described.

    open.open_client_data   a data argument in, a ClientData out
    client_data.ClientData  the interface that simulation reads: sorted client ids, serialized tf.train.Examples by client
    partition               one dataset dealt over clients (IID, Dirichlet by label, by column)
    describe                sizes and label distributions of the clients
    rows                    rows of JSON or tables to the bytes that a phone's app hands over for a task, and back

No module here imports TensorFlow.

Uses artifacts/ (digests, what a task's examples hold) and what is below it. Which clients take part in a round is simulation/'s.
"""
