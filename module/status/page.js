/* asks for the page again and again, and changes what has changed */

(function () {
    'use strict';

    const STEP = 2000, WAIT = 5000;
    const url = location.origin + location.pathname + location.search;
    const get = id => document.getElementById(id);
    const clock = () => new Date().toTimeString().slice(0, 8);
    let timer, since, paused = false, busy = false;

    function alike(a, b) {
        return a.nodeName === b.nodeName && (a.id || '') === (b.id || '');
    }

    function attributes(a, b) {
        for (const x of [...a.attributes]) {
            if (!b.hasAttribute(x.name) && x.name !== 'open') {
                a.removeAttribute(x.name);
            }
        }

        for (const x of b.attributes) {
            if (a.getAttribute(x.name) !== x.value) {
                a.setAttribute(x.name, x.value);
            }
        }
    }

    /* a becomes like b; what is the same stays, with its focus and scroll */

    function become(a, b) {
        if (a.nodeType !== 1) {
            if (a.data !== b.data) {
                a.data = b.data;
            }
            return;
        }

        attributes(a, b);

        let x = a.firstChild;

        for (const y of [...b.childNodes]) {
            if (x && y.id && !alike(x, y)) {
                const old = get(y.id);

                if (old && old.parentNode === a) {
                    a.insertBefore(old, x);
                    x = old;
                }
            }

            if (x && alike(x, y)) {
                become(x, y);
                x = x.nextSibling;
            } else {
                a.insertBefore(y, x);
            }
        }

        while (x) {
            const next = x.nextSibling;
            x.remove();
            x = next;
        }
    }

    function show(text) {
        /* its style would have to have the nonce that ours had */
        const page = new DOMParser().parseFromString(
            text.replace(/<style[^]*?<\/style>/, ''), 'text/html');
        const main = page.querySelector('main');

        if (!main || !page.getElementById('verdict')) {
            throw new Error('something else was answered');
        }

        for (const id of ['at', 'stamp', 'icon']) {
            become(get(id), page.getElementById(id));
        }

        become(document.querySelector('main'), main);
        document.title = page.title;
        get('lost').hidden = true;
        since = undefined;
    }

    function fail(error) {
        since = since || clock();
        get('lost').textContent = 'Connection lost since ' + since + ' ('
            + (error.name === 'AbortError' ? 'no answer' : error.message)
            + '). What is below was so at ' + get('at').textContent + '.';
        get('lost').hidden = false;
        document.title = 'Connection lost \u2013 ' + location.host;
    }

    function load() {
        clearTimeout(timer);

        if (paused || busy || document.hidden) {
            return;
        }

        const stop = new AbortController();
        const late = setTimeout(() => stop.abort(), WAIT);

        busy = true;

        fetch(url, { cache: 'no-store', headers: { Accept: 'text/html' },
                     signal: stop.signal })
            .then(answer => {
                if (!answer.ok) {
                    throw new Error('the server says ' + answer.status);
                }
                return answer.text();
            })
            .then(show)
            .catch(fail)
            .then(() => {
                clearTimeout(late);
                busy = false;
                timer = setTimeout(load, STEP);
            });
    }

    get('pause').addEventListener('click', () => {
        paused = !paused;
        get('pause').textContent = paused ? 'Go on' : 'Pause';
        get('does').textContent = paused ? 'Paused at' : 'Live';
        load();
    });

    document.addEventListener('visibilitychange', load);

    get('pause').hidden = false;
    get('does').textContent = 'Live';
    timer = setTimeout(load, STEP);
})();
