"""The server, its pages, and what all pages of one training share.

Who runs what
    ==================  ==========================================  =================================================
    thread              does                                        never does
    ==================  ==========================================  =================================================
    the training's      takes steps; between two of them carries    wait for a page, or hear of a failure here
                        out commands and answers the mailbox
    viser's loop        reads and writes all sockets (asyncio)      draw, compute, wait
    callbacks (16)      buttons, keys, pages that come and go       keep anybody waiting but their own page
    desk (1)            takes a snapshot from the mailbox, hands    ask for one by itself
                        it to all pages
    draw (1 a page)     draws and sends the newest view, waits for  draw what is not the newest, or take more of the
                        the page's answer                           time than ``Share`` leaves
    ticker (1 a page)   what panels do again and again              draw
    tools (1 a page)    selections and drags, in their order
    job (1 a panel)     films and files, until it is stopped
    ==================  ==========================================  =================================================

    ``desk``, ``draw`` and ``ticker`` are ``Loop``s; where nothing trains a ``StandingHost`` is one too, in the
    training's place.

How they meet
    Towards the training there are a queue of commands, a mailbox of one place and a board of figures (``splat.live``).
    A reply of a command comes on the training's thread: what hangs on it takes short locks only and cannot raise into
    the training. A snapshot is never changed; the desk keeps the newest, a draw thread the one it draws, and nobody
    keeps one once the last page is gone. A ``Look`` and a camera are values, read once per picture. So a page needs its
    locks for its own lists alone; where two are held, the inner one is the mailbox's or that of ``Share``, under which
    nothing else is asked of anybody.

How it ends
    A page may leave at any moment: viser then calls ``Viewer._left``, its loops end after the turn at hand, its jobs at
    their next word of progress, and what they say meanwhile is dropped. What fails is shown on its page as long as
    there is one. ``Viewer.close`` says goodbye, ends the pages, waits a while for their threads, then closes the port
    (whoever has not asked yet is hung up on), and last the desk. Without a page no thread of these wakes.
"""
