"""Where a lesion went: what is seen of it in a later scan, what is asked for there, and when it ends.

From the bottom: two aligned scans and how a lesion looks in them (`scene`); where all lesions of a patient are, decided
together (`settle`), and what is left at each place (`remains`); what is seen there (`locate`); the prompts these become
(`wanted`) or the outline that its brightness gives (`recall`); how sure that is (`confidence`), what a reader says
against it (`verified`), and when a lesion ends (`endings`). `track.py` walks through the scans with these.
"""
