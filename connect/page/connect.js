// Opens the connect pages from an app's own page, in a popup or an iframe, and
// tells how it went. No dependencies; see connect.d.ts.
(function (root) {
  'use strict';
  // Answers the pages' question who has opened them: by the session's token,
  // which the app gave to this page, and to the pages' origin only.
  function listen(link, target, done) {
    var url = new URL(link);
    var token = url.searchParams.get('session_token');
    function hear(event) {
      var data = event.data;
      if (event.origin !== url.origin || !data || typeof data.type !== 'string') return;
      if (event.source !== target()) return;
      if (data.type === 'connect:prove') {
        event.source.postMessage({ type: 'connect:proof', challenge: data.challenge, session_token: token }, event.origin);
      } else if (data.type === 'connect:result') {
        done(data.result);
      } else if (data.type === 'close') {
        done(failure('closed'));
      }
    }
    root.addEventListener('message', hear);
    return function () { root.removeEventListener('message', hear); };
  }

  // Asks the pages' origin how a session's last attempt went: the way that is
  // left when a provider has cut the window off from this page.
  function poll(link) {
    var url = new URL(link);
    return fetch(url.origin + '/connect/result', {
      headers: { Authorization: 'Bearer ' + url.searchParams.get('session_token') },
      credentials: 'omit', cache: 'no-store'
    }).then(function (answer) { return answer.ok ? answer.json() : null; }).catch(function () { return null; });
  }

  function failure(code) { return { status: 'failed', code: code }; }

  // Opens the link in a popup. Call it from a click, or it will be blocked.
  function open(link, options) {
    options = options || {};
    var width = options.width || 520, height = options.height || 720;
    var left = root.screenX + Math.max(0, (root.outerWidth - width) / 2);
    var top = root.screenY + Math.max(0, (root.outerHeight - height) / 2);
    var popup = root.open(link, '_blank', 'popup,width=' + width + ',height=' + height + ',left=' + left + ',top=' + top);
    if (!popup) return Promise.resolve(failure('blocked'));
    return wait(link, options.signal, function () { return popup; }, function () { return popup.closed; }, function () { popup.close(); });
  }

  // Shows the link in an iframe, which the operator has to have allowed for
  // this page's origin.
  function mount(link, container, options) {
    options = options || {};
    var frame = document.createElement('iframe');
    frame.src = link + '&embedded=1';
    frame.title = options.title || 'Connect';
    frame.style.cssText = 'border:0;width:100%;height:' + (options.height || '720px');
    container.appendChild(frame);
    return wait(link, options.signal, function () { return frame.contentWindow; }, function () { return !frame.isConnected; }, function () {
      if (!options.keep) frame.remove();
    });
  }

  // Waits for a message, or the answer to a poll. A window that a provider has
  // cut off from this page looks closed although it is not: it is taken for
  // closed only while no attempt is under way in it.
  function wait(link, signal, target, gone, close) {
    return new Promise(function (resolve) {
      var missing = 0, polling = false, ended = false;
      var silence = listen(link, target, finish);
      var timer = setInterval(function () {
        if (polling) return;
        polling = true;
        poll(link).then(function (now) {
          polling = false;
          var status = now ? now.status : 'unknown';
          if (status === 'connected' || status === 'failed' && gone()) return finish(now);
          missing = gone() && status !== 'pending' ? missing + 1 : 0;
          if (missing > 1) finish(failure('closed'));
        });
      }, 1500);
      if (signal) signal.addEventListener('abort', function () { finish(failure('aborted')); });
      function finish(result) {
        if (ended) return;
        ended = true;
        clearInterval(timer);
        silence();
        close();
        resolve(result);
      }
    });
  }

  root.Connect = { open: open, mount: mount };
})(window);
