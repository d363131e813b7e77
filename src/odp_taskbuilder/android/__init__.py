"""The phone's side of a task: what an app needs to feed it, and the files that phones read without a word when they are wrong.

    app.py             the files of an app that feeds tasks: manifest, settings, encoder of examples, service, scripts for a device
    checks.py          manifest, settings and downloads, checked stricter than phones do
    downloads.py       a download that phones accept, from a table
    download_server.py answers the phones' polling, on loopback

Uses data/ (tables), artifacts/ (what a task's examples hold) and base/. What runs a client plan is runtime/'s.
"""
