(function () {
  'use strict';
  // Copies what is beside the button.
  document.querySelectorAll('[data-copy]').forEach(function (button) {
    button.hidden = !navigator.clipboard;
    button.addEventListener('click', function () {
      navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent).then(function () {
        button.textContent = 'Copied';
      });
    });
  });
  // Reads this page again every two seconds and puts its rows in place of these.
  document.querySelectorAll('[data-live]').forEach(function (box) {
    box.parentElement.hidden = false;
    var timer;
    var again = function () {
      fetch(location.href, { credentials: 'same-origin' }).then(function (answer) { return answer.text(); }).then(function (html) {
        var rows = new DOMParser().parseFromString(html, 'text/html').getElementById(box.dataset.live);
        if (rows && box.checked) document.getElementById(box.dataset.live).replaceChildren.apply(document.getElementById(box.dataset.live), Array.from(rows.children));
      }).catch(function () { /* it is tried again */ });
    };
    box.addEventListener('change', function () {
      clearInterval(timer);
      if (box.checked) timer = setInterval(again, 2000);
    });
  });
})();
